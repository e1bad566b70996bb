"""Speed beside every SIFT program that is installed."""
