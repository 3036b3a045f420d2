"""Methods of compression, one file each in the folder of its family; the registry that finds them, and the runner that makes each prove its effect."""
