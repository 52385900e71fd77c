"""How alike two domains are to a trained network, read from its scores under foreign labels.

The thesis (4.5, table 4.11) observes that "test modes with different labels" show which features
domains share: cell lines score well under each other's label and badly under that of cracks. Here
that observation is a number for each pair of domains, and a clustering of the domains.
"""

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from metaseg_monai.errors import DataError


def domain_similarity(matrix: pd.DataFrame, symmetric: bool = True) -> pd.DataFrame:
    """Share of its own score that each domain keeps when it is given another domain's label.

    s(d, l) = F1(d given label l) / F1(d given its own label), clipped to 0..1. One direction can
    be high and the other low: in thesis table 4.11 cracks keep part of their score under a cell
    line's label, but cells keep nothing under the label of cracks.

    Args:
        matrix: rows domains, columns modes, as `evaluation.mode_matrix` returns it. Columns count
            that are ``fixed:<domain>`` or ``fixed:<field>=<domain>``; the row ``combined`` and
            domains without such a column are left out.
        symmetric: give both directions their mean (or, if one is unknown, the other one).

    Returns:
        Square table of the domains in the order of the rows, 1 on the diagonal. A domain that
        scores 0 or nothing under its own label has no measurable share: NaN.

    Raises:
        DataError: if fewer than two domains have a mode with their own label, or if two fields
            name their labels like the domains equally often.

    >>> scores = {"fixed:cell": {"cell": 0.8, "crack": 0.6}, "fixed:crack": {"cell": 0, "crack": 1}}
    >>> domain_similarity(pd.DataFrame(scores), symmetric=False).loc["crack", "cell"]
    np.float64(0.6)
    >>> domain_similarity(pd.DataFrame(scores)).loc["crack", "cell"]
    np.float64(0.3)
    """
    columns = _label_columns(matrix)
    domains = [str(row) for row in matrix.index if row in columns]
    if len(domains) < 2:
        raise DataError(
            f"Similarity needs two domains that were tested with their own label; "
            f"{', '.join(domains) or 'none'} was. Modes of the matrix: "
            f"{', '.join(map(str, matrix.columns)) or 'none'}. Evaluate with the mode fixed:*, on "
            "data whose domains are the labels of one field."
        )
    scores = matrix.loc[domains, [columns[domain] for domain in domains]].to_numpy(float)
    own = np.diag(scores)[:, None]
    share = np.divide(scores, own, out=np.full_like(scores, np.nan), where=own > 0).clip(0, 1)
    if symmetric:
        share = np.where(np.isnan(share), share.T, share)
        share = (share + share.T) / 2
    np.fill_diagonal(share, 1.0)
    return pd.DataFrame(share, index=domains, columns=domains)


def cluster(similarity: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Cluster domains by average linkage on the distance 1 - s, most alike side by side.

    Args:
        similarity: symmetric table of `domain_similarity`; an unknown similarity counts as 0,
            because nothing shows that the two domains share anything.

    Returns:
        The domains in the best order of the leaves, and the linkage (domains - 1, 4) of
        `scipy.cluster.hierarchy`, whose leaves are numbered in the order of the table.

    Raises:
        DataError: if there are fewer than two domains or the table is not symmetric.
    """
    values = similarity.fillna(0.0).to_numpy(float)
    if len(values) < 2:
        raise DataError("Clustering needs at least two domains; draw a single domain without it.")
    if values.shape[0] != values.shape[1] or not np.allclose(values, values.T):
        raise DataError(
            "Clustering needs one similarity for each pair of domains; the two directions differ. "
            "Use domain_similarity(matrix, symmetric=True)."
        )
    distance = 1.0 - (values + values.T) / 2
    np.fill_diagonal(distance, 0.0)
    linkage = hierarchy.linkage(squareform(distance), method="average", optimal_ordering=True)
    order = [str(similarity.index[leaf]) for leaf in hierarchy.leaves_list(linkage)]
    return order, linkage


def _label_columns(matrix: pd.DataFrame) -> dict[str, str]:
    """Map each domain to the column of its own label.

    Every field may have fixed labels; the domain is the field that names most rows.
    """
    fields: dict[str, dict[str, str]] = {}
    for mode in map(str, matrix.columns):
        kind, _, argument = mode.partition(":")
        if kind != "fixed":
            continue
        field, _, value = argument.rpartition("=")
        name, label = ("", argument) if argument in matrix.index else (field, value)
        if label in matrix.index and label != "combined":
            fields.setdefault(name, {})[label] = mode
    best = max(map(len, fields.values()), default=0)
    owners = [name for name, labels in fields.items() if len(labels) == best]
    if len(owners) > 1:
        raise DataError(
            f"The fields {', '.join(owners)} have the same labels as the domains; it is unclear "
            "which of them the domains are. Evaluate fixed labels of one of them only."
        )
    return fields[owners[0]] if owners else {}
