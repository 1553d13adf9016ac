"""Pictures: files, MATLAB's bicubic resizing, tiles, enlarging with a network."""

from sixfold.vision.images.enlarging import upscale
from sixfold.vision.images.resize import imresize

__all__ = ["imresize", "upscale"]
