"""What was found in the rows of a source and mended, told by one warning."""

import warnings
from collections import Counter


def percent(share: float) -> str:
    """
    :param share: from 0 to 1
    :return: it in percent
    """
    return f"{100 * share:.1f} %"


class Notes:
    """Collects what is to be told of the rows of a source, also of one that comes in many parts."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        self._dropped: Counter[str] = Counter()
        self.n_rows = 0

    def add(self, text: str) -> None:
        """
        :param text: what was found, and what is done about it
        """
        self._texts[text] = None

    def drop(self, n_rows: int, reason: str) -> None:
        """
        :param n_rows: how many rows are left out
        :param reason: why
        """
        if n_rows:
            self._dropped[reason] += n_rows

    def warn(self) -> None:
        """Tell what was collected."""
        texts = [*self._texts]
        for reason, n_rows in self._dropped.items():
            texts.append(f"{n_rows} of {self.n_rows} rows ({percent(n_rows / max(1, self.n_rows))}) are left out: {reason}")
        if texts:
            warnings.warn("Expert data: " + "; ".join(texts) + ".", stacklevel=4)
