"""System tests: the installed packages in the test machine."""
