"""The commands of `editorbot` that need the pipeline or the registry."""
