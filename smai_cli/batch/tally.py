"""The counts of a run."""

from collections import Counter


class Tally:
    """The counts of a run so far: answers, retries, tokens, and failed lines by exit status."""

    def __init__(self) -> None:
        self.answers = 0
        self.retries = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failures: Counter[int] = Counter()

    @property
    def tokens(self) -> int:
        """The total number of tokens used."""
        return self.prompt_tokens + self.completion_tokens
