# Counts for /metrics, in the text form of Prometheus
# (https://prometheus.io/docs/instrumenting/exposition_formats/).
from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

# From an answer out of a small model's cache to minutes of text.
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Histogram:
    """Of seconds."""

    def __init__(self):
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*_BUCKETS, "+Inf"), self._counts):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {total}"


class Metrics:
    def __init__(self):
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.cancelled = 0
        self.prompt_tokens = 0
        self.first_text = Histogram()
        self.answer = Histogram()

    def text(self, gauges: dict[str, tuple[str, str, float]]) -> str:
        """`gauges`: name -> (counter or gauge, help, value) of what others count."""
        lines: list[str] = []

        def add(name: str, kind: str, about: str, samples: list[str]) -> None:
            lines.extend((f"# HELP {name} {about}", f"# TYPE {name} {kind}", *samples))

        name = "shardwright_requests_total"
        samples = [
            f'{name}{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        add(name, "counter", "Requests answered, by path and HTTP status.", samples)
        for name, (kind, about, value) in gauges.items():
            add(name, kind, about, [f"{name} {value}"])
        for name, about, value in (
            ("cancelled", "Requests whose client went away first.", self.cancelled),
            ("prompt_tokens", "Tokens of the prompts that were taken.", self.prompt_tokens),
        ):
            name = f"shardwright_{name}_total"
            add(name, "counter", about, [f"{name} {value}"])
        for name, about, histogram in (
            ("first_text", "From a request to its first text.", self.first_text),
            ("answer", "From a request to the end of its text.", self.answer),
        ):
            name = f"shardwright_{name}_seconds"
            add(name, "histogram", about, list(histogram.lines(name)))
        return "\n".join(lines) + "\n"
