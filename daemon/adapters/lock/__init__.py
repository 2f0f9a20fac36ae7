"""The lock of a data directory, and the folder that holds it."""

from daemon.adapters.lock.data_dir_lock import DataDirLock, open_folder_to_ask
from daemon.adapters.lock.lock_file import HEARTBEAT_SECONDS
from daemon.adapters.lock.own_folder import OUR_FOLDER, require_data_dir

__all__ = ["HEARTBEAT_SECONDS", "OUR_FOLDER", "DataDirLock", "open_folder_to_ask", "require_data_dir"]
