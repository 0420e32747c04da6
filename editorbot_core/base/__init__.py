"""What every room stands on and no music: errors, files, tensors, devices, progress, the console, the home.

Public: `EditorBotError` and its children (`errors`), `atomic_path`, `digest` (`files`), `save_tensors`, `load_tensors`
(`tensors`), `Progress`, `Log` (`progress`), `run_command`, `say` (`console`).
"""
