"""What one would use instead of a learned rule, from scikit-learn: fixed features, and labels that spread over a graph."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import RBFSampler
from sklearn.preprocessing import FunctionTransformer
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from meta_rules.configuration import configurable
from meta_rules.evaluation.methods import Method, register
from meta_rules.evaluation.probes import chosen_on_validation


@register("raw")
@configurable
class RawInputs(Method):
    """The inputs as they are."""

    def fit(self, draw, labelled=None):
        """See `Method`."""
        return {0: FunctionTransformer()}

    def unlabelled_used(self, draw):
        """None."""
        return 0


@register("pca")
@configurable
class PrincipalComponents(Method):
    """As many principal components as the network has features, or as there are inputs or examples."""

    def fit(self, draw, labelled=None):
        """See `Method`."""
        components = min(draw.protocol.features, *draw.unlabelled.shape)
        return {0: PCA(components, random_state=draw.seed).fit(draw.unlabelled)}


class TriangleFeatures:
    """Distances to cluster centres as activities: `max(0, mean distance - distance)`.

    Source: A. Coates, H. Lee and A. Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS
    2011, section 3.2.2.
    """

    def __init__(self, clusters):
        self._clusters = clusters

    def transform(self, examples):
        """Features `[examples, clusters]`."""
        distances = self._clusters.transform(examples)
        return np.maximum(0.0, distances.mean(axis=1, keepdims=True) - distances)


@register("kmeans")
@configurable
class KMeansFeatures(Method):
    """`TriangleFeatures` of as many k-means clusters as the network has features."""

    apart = True

    def fit(self, draw, labelled=None):
        """See `Method`."""
        clusters = min(draw.protocol.features, len(draw.unlabelled))
        return {0: TriangleFeatures(KMeans(clusters, n_init=1, random_state=draw.seed).fit(draw.unlabelled))}


@register("random")
@configurable
class RandomFeatures(Method):
    """Random Fourier features of a Gaussian kernel, as many as the network has features.

    Source: A. Rahimi and B. Recht, "Random features for large-scale kernel machines", NIPS 2007.
    """

    def fit(self, draw, labelled=None):
        """See `Method`; the kernel's width is set by the variance of the unlabelled examples."""
        sampler = RBFSampler(gamma="scale", n_components=draw.protocol.features, random_state=draw.seed)
        return {0: sampler.fit(draw.unlabelled)}


class _Graph(Method):
    """Labels spread over the graph of nearest neighbours; how many neighbours is chosen on the validation examples.

    Args:
      neighbours: numbers to try.
      most: the most unlabelled examples in the graph, whose cost grows with their square.
    """

    needs_labels = True
    apart = True

    def __init__(self, neighbours: tuple = (15, 7, 3), most: int = 4000):
        self.neighbours, self.most = tuple(neighbours), most

    def description(self):
        """The settings."""
        return {"neighbours": list(self.neighbours), "most": self.most}

    def unlabelled_used(self, draw):
        """At most `most`."""
        return min(self.most, len(draw.unlabelled))

    def classifier(self, neighbours):
        """The scikit-learn classifier."""
        raise NotImplementedError

    def fit(self, draw, labelled=None):
        """See `Method`."""
        others = draw.unlabelled[~np.isin(draw.rows, labelled.rows)][: self.most]
        examples = np.concatenate([labelled.examples, others])
        labels = np.concatenate([labelled.labels, np.full(len(others), -1)])

        def candidates():
            for neighbours in self.neighbours:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    # Examples that no label reaches have no distribution over the classes.
                    warnings.simplefilter("ignore", RuntimeWarning)
                    yield self.classifier(neighbours).fit(examples, labels)

        with np.errstate(invalid="ignore"):
            return {0: chosen_on_validation(candidates(), (draw.validation.examples, draw.validation.labels))}


@register("label_propagation")
@configurable
class Propagation(_Graph):
    """Label propagation: the given labels stay as they are.

    Source: X. Zhu and Z. Ghahramani, "Learning from labeled and unlabeled data with label propagation", 2002.
    """

    def classifier(self, neighbours):
        """See `_Graph`."""
        return LabelPropagation(kernel="knn", n_neighbors=neighbours, max_iter=1000)


@register("label_spreading")
@configurable
class Spreading(_Graph):
    """Label spreading: the given labels may be overruled.

    Source: D. Zhou et al., "Learning with local and global consistency", NIPS 2003.
    """

    def classifier(self, neighbours):
        """See `_Graph`."""
        return LabelSpreading(kernel="knn", n_neighbors=neighbours, alpha=0.2, max_iter=100)
