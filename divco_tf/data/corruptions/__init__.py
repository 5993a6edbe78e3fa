"""Common corruptions of images, made as they are asked for: what accuracy under corruption is measured on."""

from divco_tf.data.corruptions.corrupt import corrupt as corrupt
from divco_tf.data.corruptions.source import CorruptedSource as CorruptedSource
from divco_tf.data.corruptions.table import CORRUPTIONS as CORRUPTIONS
from divco_tf.data.corruptions.table import SEVERITIES as SEVERITIES
