"""What benchmarks/cluster.py is made of: a network of its own, nodes, an upstream, clients."""
