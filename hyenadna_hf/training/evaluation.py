"""
The metrics as modules of `evaluate`, which work without the Hub.

    metric = evaluate.combine([Accuracy(), MatthewsCorrelation(), MacroF1()])
    metric.compute(predictions=[0, 1, 1], references=[0, 1, 0])
"""

import evaluate
from datasets import Features, Sequence, Value

from .metrics import auroc_by_group, classification_metrics


class _ClassMetric(evaluate.Metric):
    """One of [`classification_metrics`]."""

    metric: str

    def _info(self):
        number = Value("int64")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions, references):
        return {self.metric: classification_metrics(predictions, references)[self.metric]}


class Accuracy(_ClassMetric):
    """Share of right classes."""

    metric = "accuracy"


class MatthewsCorrelation(_ClassMetric):
    """Matthews correlation coefficient."""

    metric = "mcc"


class MacroF1(_ClassMetric):
    """F1, averaged over the classes."""

    metric = "f1"


class GroupedAUROC(evaluate.Metric):
    """
    Median AUROC over the labels of each group: `compute(predictions=, references=, groups=)`, where predictions are the
    scores and references 0 and 1 of each label, of shape `(rows, labels)`, and groups as for [`auroc_by_group`].
    """

    def _info(self):
        features = Features({"predictions": Sequence(Value("float32")), "references": Sequence(Value("int8"))})
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=features)

    def _compute(self, predictions, references, groups):
        return auroc_by_group(predictions, references, groups)
