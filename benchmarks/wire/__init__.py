"""What the benchmarks of the proxy share: an upstream, a load, and the processes between."""
