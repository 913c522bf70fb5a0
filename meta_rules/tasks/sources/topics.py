"""Bags of words that are made up: documents about a few topics, in words of very different frequency."""

import numpy as np

from meta_rules.tasks.sources.base import Content, Option, SourceInfo, register, whole
from meta_rules.tasks.sources.drawn import EXAMPLES, Drawn, generator


@register("topics")
class Topics(Drawn):
    """Each class prefers a few topics, a topic prefers some words; a document mixes topics and has a length of its own.

    Features `[examples, vocabulary]` are log(1 + count), as those of text (latent Dirichlet allocation, Blei et al. 2003, with
    frequencies that fall as Zipf's law). The seed draws other topics and classes.
    """

    options = {
        "examples": EXAMPLES,
        "classes": Option(40, whole(2), "classes"),
        "vocabulary": Option(512, whole(2), "words, and features of an example"),
        "topics": Option(30, whole(1), "topics that all classes share"),
        "words": Option(100, whole(1), "words of a document of usual length"),
    }

    def info(self):
        """See `Source`."""
        classes = self.option["classes"]
        origin = "drawn: bags of words from a mixture of topics"
        return SourceInfo(self.name, (self.option["vocabulary"],), classes, self.sizes(classes), origin)

    def read(self, stored, size, colour, seed):
        """See `Source`."""
        classes, words, topics = (self.option[key] for key in ("classes", "vocabulary", "topics"))
        world = generator(seed, self.kind, "classes")
        frequency = 1 / (np.arange(words) + 5.0)
        topic = frequency * np.exp(1.5 * world.normal(size=(topics, words)))
        topic /= topic.sum(axis=1, keepdims=True)
        preferred = world.gamma(0.15, size=(classes, topics)) + 1e-3
        preferred /= preferred.sum(axis=1, keepdims=True)

        draws = generator(seed, self.kind, stored)
        labels = self.labels(stored, classes)
        length = np.rint(self.option["words"] * np.exp(0.7 * draws.normal(size=len(labels)))).astype(int) + 1
        counts = np.empty((len(labels), words), np.float32)
        for start in range(0, len(labels), 2048):
            rows = slice(start, start + 2048)
            # Two thirds of a document are about what its class prefers, a third about anything.
            mixture = draws.gamma(4 * preferred[labels[rows]] + 2 / topics)
            mixture /= mixture.sum(axis=1, keepdims=True)
            share = mixture @ topic
            counts[rows] = draws.multinomial(length[rows], share / share.sum(axis=1, keepdims=True))
        return Content(np.log1p(counts), labels, tuple(f"class{index}" for index in range(classes)))
