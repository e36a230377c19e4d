-- What load.lua sends, but each connection pauses before a request. The fourth argument is the mean pause in milliseconds.
-- Pauses are random (exponential), so that many connections together send requests at random times.

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "load.lua")

local load_init, think = init, 0

function init(args)
   think = tonumber(args[4])
   load_init(args)
end

function delay()
   return math.floor(-think * math.log(1 - math.random()) + 0.5)
end
