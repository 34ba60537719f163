# src/rules: the built-in rule file becomes a string of the program.
file(READ ${CMAKE_SOURCE_DIR}/src/rules/builtin.yaml builtin_rules)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/rules/builtin.yaml)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/rules/builtin.cpp @ONLY CONTENT
[=[// Generated from src/rules/builtin.yaml.
#include "rules/file.h"

namespace shardwright::rules {

std::string_view builtin_rules_text() { return R"yaml(@builtin_rules@)yaml"; }

}  // namespace shardwright::rules
]=])
sw_folder(rules DEPS ir LINK ${YAML_CPP})
target_sources(sw_rules PRIVATE ${CMAKE_BINARY_DIR}/generated/rules/builtin.cpp)
