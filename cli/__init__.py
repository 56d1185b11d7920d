"""The `tollway` command: the local stack, migrations, seeds and a look at what runs."""
