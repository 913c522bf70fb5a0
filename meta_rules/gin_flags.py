"""The two flags with which every command of gin files takes its configuration; defined once, since flags are one namespace."""

from absl import flags

GIN_FILE = flags.DEFINE_multi_string(
    "gin_file",
    [],
    "Gin file, or the name of a shipped one such as gin/mnist.gin; repeatable, later ones win.",
)
GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "Gin binding such as MetaTrainer.meta_steps=10; repeatable."
)
