/* What the program does, one function a command. Each answers false with an error, which main()
 * prints; what they print themselves goes to standard output. */
#pragma once

#include "app/settings.h"

bool command_train(const struct settings *settings, struct error *error);
bool command_test(const struct settings *settings, struct error *error);
bool command_classes(const struct settings *settings, struct error *error);
bool command_predict(const struct settings *settings, struct error *error);
bool command_export(const struct settings *settings, struct error *error);
bool command_import(const struct settings *settings, struct error *error);
bool command_synth(const struct settings *settings, struct error *error);
bool command_verify(const struct settings *settings, struct error *error);
