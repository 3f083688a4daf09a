"""pgAdmin's settings for the test: as its container runs it, for people who log in, on loopback and in a directory that
is gone afterwards. pgAdmin reads this through CONFIG_DISTRO_FILE_PATH."""

import os

SERVER_MODE = True
DATA_DIR = os.environ["PGADMIN_DATA"]
DEFAULT_SERVER = "127.0.0.1"
DEFAULT_SERVER_PORT = int(os.environ["PGADMIN_PORT"])
# Nothing of the test leaves this machine.
UPGRADE_CHECK_ENABLED = False
SHOW_GRAVATAR_IMAGE = False
CHECK_EMAIL_DELIVERABILITY = False
LLM_ENABLED = False
# The browser is what Debian has.
CHECK_SUPPORTED_BROWSER = False
