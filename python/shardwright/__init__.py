from .errors import ShardwrightError
