"""Real meshes in network namespaces that the tests and the benchmark make themselves."""
