"""Images to train and measure on, by name."""

from ajpq.data.augment import augment
from ajpq.data.batching import Split, batches, normalize, split, test_batches, training_batches
from ajpq.data.dataset import Augmentation, Dataset, fingerprint
from ajpq.data.registry import data_names, load_data

__all__ = [
    "Augmentation",
    "Dataset",
    "Split",
    "augment",
    "batches",
    "data_names",
    "fingerprint",
    "load_data",
    "normalize",
    "split",
    "test_batches",
    "training_batches",
]
