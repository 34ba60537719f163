# sw_embed(FOLDER FILE FUNCTION HEADER): the text of src/FOLDER/FILE as a string of the program, the result of
# shardwright::FOLDER::FUNCTION(), which HEADER declares.
function(sw_embed folder file function header)
  set(path ${CMAKE_SOURCE_DIR}/src/${folder}/${file})
  set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(READ ${path} text)
  set(out ${CMAKE_BINARY_DIR}/generated/${folder}/${function}.cpp)
  file(CONFIGURE OUTPUT ${out} @ONLY CONTENT
[=[// Generated from src/@folder@/@file@.
#include "@header@"

namespace shardwright::@folder@ {

std::string_view @function@() { return R"text(@text@)text"; }

}  // namespace shardwright::@folder@
]=])
  target_sources(sw_${folder} PRIVATE ${out})
endfunction()
