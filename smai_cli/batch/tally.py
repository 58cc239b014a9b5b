"""The counts of a run so far."""

from collections import Counter


class Tally:
    """What came of a run so far: answers, retries, tokens, and how many lines failed with each exit status."""

    def __init__(self) -> None:
        self.answers = 0
        self.retries = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failures: Counter[int] = Counter()

    @property
    def tokens(self) -> int:
        """How many tokens were used in all."""
        return self.prompt_tokens + self.completion_tokens
