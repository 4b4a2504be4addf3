"""The role of ansible/, as far as it can be tried without a machine. tests/system applies it to one."""
