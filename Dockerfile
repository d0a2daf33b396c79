# Equipoise in a container. See docs/devices.md for how it is run.
FROM python:3.12-slim
WORKDIR /opt/equipoise
COPY . .
ENV PIP_NO_CACHE_DIR=1
RUN pip install -c constraints.txt '.[features,hub,tensorboard]'
ENV EQUIPOISE_CACHE=/cache/equipoise HF_HOME=/cache/huggingface
WORKDIR /data
ENTRYPOINT ["equipoise"]
CMD ["--help"]
