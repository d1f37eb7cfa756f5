package pluginapi

// LogSocket is the name of the agent's socket for lines of the plugin's log, in the directory of its other socket.
const LogSocket = "log.sock"

// PathLog takes a JSON array of lines, each a JSON object with level, time, logger, msg and what else the plugin has to say.
const PathLog = "/log"
