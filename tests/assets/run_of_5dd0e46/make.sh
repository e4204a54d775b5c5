#!/usr/bin/env bash
# Make what lies beside this file: a training run of commit 5dd0e46, whose keys and `_target_`s have
# other names today. tests/smoke/test_run_of_an_earlier_version.py reads it with the code of today.
#   git worktree add --detach OLD 5dd0e46 && bash make.sh OLD PYTHON FOLDER
# Its checkpoint is that of step 4 of 6: task=resume trains the other two. @FOLDER@ in its texts
# stands for the folder that holds base, data and run.
set -euo pipefail
old=$(realpath "$1") python=$2 home=$(mktemp -d)
mkdir -p "$3" && cd "$3" && here=$PWD
export HOME=$home HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 QUARRY_CACHE=$home/cache PYTHONPATH=$old/src

"$python" - <<'PYTHON'
import itertools
import json
import shutil
from pathlib import Path

from quarry.models.backbones.tiny_qwen import TinyQwen

VERBS = ("read", "write", "close", "open", "sort", "copy", "move", "print")
NOUNS = ("file", "line", "list", "table")
PAIRS = list(itertools.product(VERBS, NOUNS))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


documents = [
    {"_id": f"{v}_{n}_{i}", "title": ("", n.title())[i], "text": text}
    for v, n in PAIRS
    for i, text in enumerate((f"def {v}_{n}(self): return self.{n}.{v}()", f"How to {v} a {n} safely"))
]
queries = [{"_id": f"{v}_{n}", "text": f"{v} the {n}"} for v, n in PAIRS]
judged = [(q["_id"], f"{q['_id']}_{i}", 1 + i) for q in queries for i in (0, 1)]
passages = [{"docid": d["_id"], "title": d["title"], "text": d["text"]} for d in documents]
examples = [
    {
        "query_id": "t" + q["_id"],
        "query": f"how do I {q['text']}",
        "positive_passages": [passages[2 * i]],
        "negative_passages": [passages[2 * i - 1], passages[2 * i - 2]],
    }
    for i, q in enumerate(queries)
]
write(Path("data/set/corpus.jsonl"), documents)
write(Path("data/set/queries.jsonl"), queries)
write(Path("data/train.jsonl"), examples)
Path("data/set/qrels").mkdir()
lines = ["\t".join(map(str, row)) + "\n" for row in judged]
Path("data/set/qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
# not the demo's own replica: its tokenizer depends on the Python that runs
base = TinyQwen(
    texts=lambda: [d["text"] for d in documents], cache_dir=Path.home(), vocab_size=400,
    hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, embedding_std=0.4, seed=0,
)
shutil.copytree(base.folder(), "base")
PYTHON

(until cp run/checkpoints/last.ckpt "$home/step4.ckpt" 2> /dev/null; do sleep 0.003; done) &
"$python" "$old/train.py" \
  model=qwen-tiny model.path="$here/base" model/adapter=lora model.adapter.r=4 model.adapter.alpha=8 \
  model.is_normalized=true model.linear=plain model.has_trusted_code=false \
  data=jsonl data.path="$here/data/train.jsonl" data.num_hard_negatives=2 \
  data.num_queries_per_update=8 loss.num_contrast_queries=8 \
  benchmark=folder benchmark.path="$here/data/set" benchmark.content=code \
  optimizer.lr=0.01 scheduler.num_warmup_steps=1 trainer.max_steps=6 trainer.accelerator=cpu \
  evaluation.every_n_steps=2 evaluation.top_k=20 'evaluation.measures=[nDCG@10,MRR@10]' \
  callbacks.last_checkpoint.every_n_steps=4 logger=none hydra.run.dir="$here/run"
wait
mv "$home/step4.ckpt" run/checkpoints/last.ckpt
rm -r run/plots "$home"
chmod -R u+rw,go+r .
grep -rlI "$here" . | xargs sed -i "s|$home|@FOLDER@|g; s|$here|@FOLDER@|g"
