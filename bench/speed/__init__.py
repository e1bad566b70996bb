"""Speed and memory beside OpenCV and scikit-image."""
