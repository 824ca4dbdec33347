"""What commands share on a terminal: output, tables, progress, options, where files are. Imports no command."""
