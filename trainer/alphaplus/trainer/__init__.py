"""The external trainer: claims a job, reads a training set, fits, exports, reports."""
