# The facts that tests/db/test_clients.py asks of R (DBI, RPostgreSQL); see there. TLS, the address and
# the password come from libpq's environment.
suppressMessages(library(RPostgreSQL))
env <- function(name) Sys.getenv(name)
say <- function(name, value) { cat(name, "\t", value, "\n", sep = ""); flush(stdout()) }
db <- dbConnect(PostgreSQL())
invisible(dbGetQuery(db, "set timezone = 'UTC'"))
row <- suppressWarnings(dbGetQuery(db, paste0(
    "select to_char(ts at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as ts, n::text as n,",
    " extract(epoch from i)::float8 as i, a::text as a, nan, inf, nothing, pair::text as pair from (",
    env("TYPES"), ") t"
)))
say("ts", row$ts)
say("n", row$n)
say("i", row$i)
say("a", gsub(",", " ", gsub("[{}]", "", row$a)))
say("nan", row$nan)
say("inf", row$inf)
say("nothing", if (is.na(row$nothing)) "null" else "something")
say("pair", row$pair)
found <- tryCatch(suppressWarnings(dbGetQuery(db, env("WRONG"))), error = function(e) NULL)
say("state", if (is.null(found)) "refused" else "answered")
lines <- file("stdin", "r")
for (name in c("before", "after")) {
    asked <- sub("$1", paste0("timestamptz '", env("WHEN"), "'"), env("PREPARED"), fixed = TRUE)
    say(name, dbGetQuery(db, asked)$version_id)
    if (name == "before") invisible(readLines(lines, 1))
}
invisible(dbGetQuery(db, "set statement_timeout = '1s'"))
ended <- tryCatch(suppressWarnings(dbGetQuery(db, "select pg_sleep(60)")), error = function(e) NULL)
say("canceled", if (is.null(ended)) "57014" else "no")
invisible(dbDisconnect(db))
