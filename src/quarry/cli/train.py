"""Train a dense retriever: `quarry-train [GROUP=OPTION] [KEY=VALUE]`, see conf/train.yaml."""

from quarry.cli.command import run_command


def main() -> None:
    """Run the command line of this process."""
    run_command("train")


if __name__ == "__main__":
    main()
