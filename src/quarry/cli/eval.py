"""Evaluate retrievers: `quarry-eval [GROUP=OPTION] [KEY=VALUE]`, see conf/eval.yaml."""

from quarry.cli.command import run_command


def main() -> None:
    """Run the command line of this process."""
    run_command("eval")


if __name__ == "__main__":
    main()
