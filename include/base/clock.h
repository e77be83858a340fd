/* Time that passes. */
#pragma once

/* Seconds since some fixed moment; never set back. */
double clock_seconds(void);
