"""EditorBot: learns to edit music from people who compare two edits of one song."""
