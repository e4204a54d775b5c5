"""Evaluate retrievers: `python eval.py [GROUP=OPTION] [KEY=VALUE]`, see conf/eval.yaml."""

from quarry.cli.eval import main

if __name__ == "__main__":
    main()
