"""The network of AWS's guide, in network namespaces. I/O: talks to the kernel, as root."""
