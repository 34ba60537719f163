# src/cli/explain.html becomes a string of the program.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cli/explain.html)
file(READ ${CMAKE_SOURCE_DIR}/src/cli/explain.html explain_page)
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/generated/cli/explain_page.cpp @ONLY CONTENT
[=[// Generated from src/cli/explain.html.
#include "cli/explain_page.h"

namespace shardwright::cli {

std::string_view explain_page() { return R"page(@explain_page@)page"; }

}  // namespace shardwright::cli
]=])
target_sources(sw_cli PRIVATE ${CMAKE_BINARY_DIR}/generated/cli/explain_page.cpp)
