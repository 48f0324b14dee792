"""The metrics listener's text, parsed by prometheus_client, with short ways to ask."""

from __future__ import annotations

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Metrics:
    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: list[Sample] = []
        for family in text_string_to_metric_families(text):
            self.samples += family.samples
        keys = [(s.name, tuple(sorted(s.labels.items()))) for s in self.samples]
        twice = {key for key, count in Counter(keys).items() if count > 1}
        assert not twice, f"series come twice: {sorted(twice)[:3]}"

    def find(self, name: str, **labels: str) -> list[Sample]:
        return [s for s in self.samples if s.name == name
                and all(s.labels.get(k) == v for k, v in labels.items())]

    def value(self, name: str, **labels: str) -> float:
        """Sum over the samples that carry these labels; 0 when there is none."""
        return sum(s.value for s in self.find(name, **labels))

    def only(self, name: str, **labels: str) -> Sample:
        found = self.find(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found or 'no sample'}"
        return found[0]

    def label_values(self, name: str, label: str) -> set[str]:
        return {s.labels[label] for s in self.find(name)}

    def names(self) -> set[str]:
        """Names as exposed (TYPE lines), counters with their _total."""
        return {line.split(" ")[2] for line in self.text.splitlines()
                if line.startswith("# TYPE ")}

    def type_of(self, name: str) -> str:
        for line in self.text.splitlines():
            if line.startswith(f"# TYPE {name} "):
                return line.split(" ")[3]
        raise AssertionError(f"no TYPE line for {name}")

    def bounds(self, name: str) -> list[float]:
        """Upper bounds of a histogram's buckets, of one of its series, in order of exposure."""
        found = self.find(f"{name}_bucket")
        assert found, f"no buckets of {name}"
        rest = {k: v for k, v in found[0].labels.items() if k != "le"}
        return [float(s.labels["le"]) for s in found
                if {k: v for k, v in s.labels.items() if k != "le"} == rest]
