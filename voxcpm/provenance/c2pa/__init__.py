"""C2PA manifests: signed statements about a file, in the file or beside it as `NAME.SUFFIX.c2pa`. Needs the extra `provenance`."""
