"""Tests in C, built with sanitizers and run from pytest."""
