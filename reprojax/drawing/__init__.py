"""Drawing: figures, axes and legends, how numbers read, and lines over the number of images."""
