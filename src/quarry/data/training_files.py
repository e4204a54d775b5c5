from quarry.data.jsonl import find_file


def find_training_files(path):
    return [find_file(path)]
