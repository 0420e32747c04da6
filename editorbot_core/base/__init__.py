"""What all other packages use, nothing of it about music: errors, files, tensors, devices, progress, console, home.

Public: `EditorBotError` and its children (`errors`), `atomic_path`, `digest` (`files`), `save_tensors`, `load_tensors`
(`tensors`), `Progress`, `Log` (`progress`), `run_command`, `say` (`console`).
"""
