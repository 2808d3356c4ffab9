"""The benchmarks behind every performance figure we print."""
