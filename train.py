"""Train a dense retriever: `python train.py [GROUP=OPTION] [KEY=VALUE]`, see conf/train.yaml."""

from quarry.cli.train import main

if __name__ == "__main__":
    main()
