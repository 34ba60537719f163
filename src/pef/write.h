// Writes a PEF: streaming, atomic, the same bytes for the same input.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "pef/program.h"

namespace shardwright::pef {

struct WriteOptions {
  std::string report_json = "{}";  // the explain data
  // What goes along with the model, by name ("tokenizer.json"): kept as it is.
  std::map<std::string, std::string> files = {};
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress = {};
};

// `views[i]` are the bytes of manifest.tensors[i], any strides. Writes to a temporary name beside
// `path`, fsyncs, renames, fsyncs the folder; leaves nothing half-written. Peak memory does not
// grow with the tensors: pieces of at most 16 MiB. Sets Tensor::offset_bytes. Throws Error(kUsage)
// where the disk is full or the folder can't be written, with the bytes needed.
void write(const std::string& path, Manifest manifest, const std::vector<TensorView>& views,
           const WriteOptions& options = {});

}  // namespace shardwright::pef
