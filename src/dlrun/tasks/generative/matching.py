"""Match clusters with classes: how well clusters found without labels agree with the samples' classes."""

import numpy as np


def matched(counts: np.ndarray) -> list[int]:
    """The class of each cluster, -1 for none, one cluster for each class, so that most samples are in the right one.

    counts: samples (clusters, classes). The Hungarian algorithm with potentials (Kuhn 1955; Munkres 1957): clusters
    are added one by one, each by the cheapest path of changed assignments.
    """
    size = max(counts.shape)
    cost = np.zeros((size + 1, size + 1))
    cost[1 : counts.shape[0] + 1, 1 : counts.shape[1] + 1] = -counts
    rows, columns = np.zeros(size + 1), np.zeros(size + 1)  # potentials; number 0 stands for none
    cluster_of = np.zeros(size + 1, int)
    for cluster in range(1, size + 1):
        cluster_of[0], column = cluster, 0
        least, before, done = np.full(size + 1, np.inf), np.zeros(size + 1, int), np.zeros(size + 1, bool)
        while cluster_of[column]:
            done[column] = True
            row = cluster_of[column]
            reduced = cost[row] - rows[row] - columns
            nearer = ~done & (reduced < least)
            least[nearer], before[nearer] = reduced[nearer], column
            column = int(np.where(done, np.inf, least)[1:].argmin()) + 1
            step = least[column]
            np.add.at(rows, cluster_of[done], step)
            columns[done] -= step
            least[~done] -= step
        while column:
            cluster_of[column] = cluster_of[before[column]]
            column = int(before[column])
    classes = np.full(size, -1)
    classes[cluster_of[1 : counts.shape[1] + 1] - 1] = np.arange(counts.shape[1])
    return classes[: counts.shape[0]].tolist()


def clustering_accuracy(counts: np.ndarray) -> float:
    """The share of samples whose cluster is matched with their class. counts: samples (clusters, classes)."""
    right = sum(counts[cluster, label] for cluster, label in enumerate(matched(counts)) if label >= 0)
    return float(right / max(1, counts.sum()))


def purity(counts: np.ndarray) -> float:
    """The share of samples that are of the commonest class of their cluster. counts: samples (clusters, classes)."""
    return float(counts.max(1).sum() / max(1, counts.sum()))
