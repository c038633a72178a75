"""The embedded environment ``sandbox``: a Harbor environment made of Linux namespaces."""
